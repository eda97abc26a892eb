"""Calibration, and INT8 as Q/DQ nodes."""
