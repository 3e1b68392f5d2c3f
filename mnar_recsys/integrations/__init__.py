"""The model inside other toolkits. Nothing here is imported by the rest of the package, nor imports it unasked."""
