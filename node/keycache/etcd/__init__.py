"""The entry log on etcd: the client, the key space, the log itself."""
