-- Channel numbers: of four channels by name, of the others from the address. Bids with neither are left out.
CREATE MATERIALIZED VIEW q21 AS
SELECT *
FROM (
  SELECT auction, bidder, price, channel,
    CASE lower(channel)
      WHEN 'apple' THEN '0'
      WHEN 'google' THEN '1'
      WHEN 'facebook' THEN '2'
      WHEN 'baidu' THEN '3'
      ELSE (regexp_match(url, '[?&]channel_id=([^&]*)'))[1]
    END AS channel_id
  FROM bid
) AS numbered
WHERE channel_id IS NOT NULL;
