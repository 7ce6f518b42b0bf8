"""The vault: secrets sealed at rest, in numbered immutable versions."""
