"""The studio: presenters no camera ever saw, made from numbers. Nothing shipped has a real person's likeness."""
