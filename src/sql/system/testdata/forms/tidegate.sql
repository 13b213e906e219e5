SELECT * FROM tidegate.streams;
SELECT name, kind, emit, key, depends_on, state FROM tidegate.views ORDER BY name;
SELECT * FROM tidegate.watermarks;
SELECT * FROM tidegate.partitions;
SELECT * FROM tidegate.snapshot;
