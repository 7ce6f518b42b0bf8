"""Add-ons: stateful engines, provisioned and kept."""
