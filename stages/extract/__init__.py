"""Extract: put every image and planned view through the frozen backbone once, into a feature store."""
