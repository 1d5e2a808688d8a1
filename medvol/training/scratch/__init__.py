"""What only a policy from random weights needs: it learns to see and where to look before it answers."""
