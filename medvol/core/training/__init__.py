"""Training a policy: data, packing, losses, Lightning modules."""
