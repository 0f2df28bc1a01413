//! Two data threads: a mirrored volume and the export that holds its remote leg.
