"""The commands of `lorikeet`, a file for each group."""
