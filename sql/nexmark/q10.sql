-- Archive: every bid with the day and the minute under which an archive would file it. (The suite writes files; here the rows
-- are a table that COPY (SELECT … WHERE day = … AND minute = …) TO STDOUT takes them from.)
CREATE MATERIALIZED VIEW q10 AS
SELECT auction, bidder, price, date_time, extra, to_char(date_time, 'YYYY-MM-DD') AS day, to_char(date_time, 'HH24:MI') AS minute
FROM bid;
