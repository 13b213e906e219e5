-- User sessions: how many bids a person made before a pause of ten seconds.
CREATE MATERIALIZED VIEW q11 AS
SELECT bidder, COUNT(*) AS bids, window_start, window_end
FROM SESSION(bid PARTITION BY (bidder), date_time, INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end;
