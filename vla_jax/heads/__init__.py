"""Action heads: from the trunk's context to a chunk of actions."""
