-- Folders: the first three parts of every bid's address.
CREATE MATERIALIZED VIEW q22 AS
SELECT auction, bidder, price, channel,
  split_part(url, '/', 4) AS folder1, split_part(url, '/', 5) AS folder2, split_part(url, '/', 6) AS folder3
FROM bid;
