-- Windows of processing time: how many bids of each person came in, every ten seconds of the server's clock.
CREATE MATERIALIZED VIEW q12 AS
SELECT bidder, COUNT(*) AS bids, window_start, window_end
FROM TUMBLE(bid, _ingested_at, INTERVAL '10 seconds')
GROUP BY bidder, window_start, window_end;
