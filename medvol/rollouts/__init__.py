"""The one pipeline: ask a policy, read what it says, follow its anchors to masks, score the rollouts."""
