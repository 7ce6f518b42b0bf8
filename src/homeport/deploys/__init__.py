"""Deploys: plan, workflow, and the reconcilers that keep what is live as it should be."""
