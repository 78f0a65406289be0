"""What the benches of the anonymizer share: a corpus of invented MR files, and the peers that it is measured beside."""
