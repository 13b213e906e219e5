-- Local items: who in three states sells in category 10, and what. Two streams joined without a bound in time.
CREATE MATERIALIZED VIEW q3 AS
SELECT person.name, person.city, person.state, auction.id
FROM auction
JOIN person ON person.id = auction.seller
WHERE auction.category = 10 AND person.state IN ('OR', 'ID', 'CA');
