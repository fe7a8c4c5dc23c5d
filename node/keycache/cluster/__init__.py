"""What a cluster is made of beside the log itself: an etcd of our own, its members, its upkeep."""
