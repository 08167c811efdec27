"""The doctor: what can be measured on this machine, and what makes timing on it untrustworthy.

Every probe is a function of files (`SystemFiles`) or of a module that stands for NVML, so that a
machine can be made up. Nothing here loads torch.
"""
