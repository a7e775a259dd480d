"""Serving live traffic: the control process and the data process."""
