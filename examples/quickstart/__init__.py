"""An existing application, protected in two lines."""
