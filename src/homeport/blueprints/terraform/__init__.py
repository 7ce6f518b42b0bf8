"""Terraform for Google Cloud: Cloud Run, Cloud SQL, Memorystore, Secret Manager and Cloud Scheduler."""

from homeport.blueprints.terraform.writer import TerraformWriter

__all__ = ["TerraformWriter"]
