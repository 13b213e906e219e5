-- The core job of a stream processor on Nexmark's bids: count, sum and maximum per auction in windows of ten seconds.
-- A million events are 20,000 people, 60,000 auctions and 920,000 bids, in 100 seconds of event time.
--
--   psql -h 127.0.0.1 -p 6433 -U tidegate -f sql/nexmark_core.sql

\set ON_ERROR_STOP on

DROP MATERIALIZED VIEW IF EXISTS core;
DROP STREAM IF EXISTS bid;

CREATE STREAM bid (
  auction   BIGINT,
  bidder    BIGINT,
  price     BIGINT,
  channel   TEXT,
  url       TEXT,
  date_time TIMESTAMP(3),
  extra     TEXT,
  WATERMARK FOR date_time AS date_time - INTERVAL '4' SECOND
) WITH (connector = 'nexmark', type = 'bid', events = 1000000, seed = 42);

CREATE MATERIALIZED VIEW core AS
SELECT auction, COUNT(*) AS bids, SUM(price) AS total, MAX(price) AS highest, window_start, window_end
FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(date_time), INTERVAL '10' SECOND))
GROUP BY auction, window_start, window_end;

-- How far it has come: ask again until all 920,000 bids are in.
SELECT COUNT(*) AS rows, SUM(bids) AS bids, MAX(window_end) AS until FROM core;

SELECT window_start, auction, bids, total, highest FROM core ORDER BY bids DESC, auction, window_start LIMIT 10;

VERIFY core;
