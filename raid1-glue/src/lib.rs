//! md RAID1 and kernel nbd glue.
