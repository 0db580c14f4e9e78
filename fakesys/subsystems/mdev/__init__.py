"""Mediated devices in general: parents, types, devices, iommu groups."""
