"""What all of medvol shares; imports no component."""
