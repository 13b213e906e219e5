-- What the chart shows: requests to a service, and how many there were of each status in every ten seconds.
CREATE STREAM IF NOT EXISTS requests (path TEXT NOT NULL, status INTEGER, took DOUBLE PRECISION, at TIMESTAMP(3),
  WATERMARK FOR at AS at - INTERVAL '5' SECOND);
COMMENT ON TABLE requests IS 'requests to the service';
COMMENT ON COLUMN requests.took IS 'milliseconds';

CREATE MATERIALIZED VIEW IF NOT EXISTS load AS
SELECT window_start, status, COUNT(*) AS requests, AVG(took) AS took
FROM TUMBLE(TABLE requests, DESCRIPTOR(at), INTERVAL '10' SECOND)
GROUP BY window_start, status;
COMMENT ON MATERIALIZED VIEW load IS 'requests by status, every ten seconds';

CREATE VIEW errors AS SELECT path, status, at FROM requests WHERE status >= 500;

INSERT INTO requests
SELECT '/page/' || (n % 7), CASE WHEN n % 10 = 0 THEN 500 ELSE 200 END, n % 100, TIMESTAMP '2025-01-01 10:00:00' + n * INTERVAL '1 second'
FROM generate_series(0, 299) AS g(n);
