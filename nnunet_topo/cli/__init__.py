"""The command `nnunet-topo`: one small file a subcommand, each parses, calls and prints."""
