"""Methods that teach a small medical-segmentation network with SAM when labels are few."""
