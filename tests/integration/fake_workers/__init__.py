"""Engine processes that misbehave in one way each; the adapters under test start them by module name."""
