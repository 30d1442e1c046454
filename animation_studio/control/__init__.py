"""Control maps: preprocessing of reference pictures, and the pose library."""
