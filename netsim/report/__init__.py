"""Traces for readers: text in three verbosities, JSON with stable keys, captures with the deciding rule as comment."""
