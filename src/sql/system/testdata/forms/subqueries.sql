-- one row, no row, with predicates that are no equalities
SELECT relname, (SELECT nspname FROM pg_namespace WHERE oid = relnamespace) FROM pg_class WHERE oid >= 16384 ORDER BY 1;
SELECT a.relname, (SELECT count(*) FROM pg_attribute b WHERE b.attrelid = a.oid AND b.attnum > a.relchecks) FROM pg_class a WHERE a.relkind IN ('m', 'i') ORDER BY 1;
SELECT a.relname, (SELECT b.attname FROM pg_attribute b WHERE b.attrelid = a.oid ORDER BY b.attnum DESC LIMIT 1) FROM pg_class a WHERE a.oid BETWEEN 16384 AND 20000 ORDER BY 1;
-- more than one row
SELECT (SELECT attname FROM pg_attribute WHERE attrelid = c.oid) FROM pg_class c WHERE c.relname = 'orders';
-- more than one row, but for none that asks
SELECT (SELECT attname FROM pg_attribute WHERE attrelid = c.oid AND attnum = 1) FROM pg_class c WHERE c.relname = 'orders';
-- EXISTS in the select list
SELECT c.relname, EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid) AND true FROM pg_class c WHERE c.oid BETWEEN 16384 AND 20000 ORDER BY 1;
SELECT EXISTS (SELECT 1 FROM pg_policy), NOT EXISTS (SELECT 1 FROM pg_policy);
-- two levels
SELECT c.relname, ARRAY(SELECT a.attname || ':' || (SELECT t.typname FROM pg_type t WHERE t.oid = a.atttypid AND c.relkind <> 'x') FROM pg_attribute a WHERE a.attrelid = c.oid ORDER BY a.attnum) FROM pg_class c WHERE c.oid BETWEEN 16384 AND 20000 ORDER BY 1;
-- an empty array is not NULL
SELECT ARRAY(SELECT attname FROM pg_attribute WHERE attnum > 10000) AS a, array_length(ARRAY(SELECT 1 UNION SELECT 2), 1) AS n;
-- UNNEST of an outer column, LATERAL
SELECT c.relname, o FROM pg_class c, unnest(c.reloptions) o;
SELECT c.relname, x.attname FROM pg_class c, LATERAL (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid ORDER BY a.attnum DESC LIMIT 2) x WHERE c.oid BETWEEN 16384 AND 16386 ORDER BY 1, 2;
SELECT c.relname, x.n FROM pg_class c LEFT JOIN LATERAL (SELECT count(*) AS n FROM pg_index i WHERE i.indrelid = c.oid) x ON true WHERE c.oid BETWEEN 16384 AND 20000 ORDER BY 1;
-- aggregates over nothing
SELECT c.relname, (SELECT coalesce(max(attnum), -1) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'owner') FROM pg_class c WHERE c.oid BETWEEN 16384 AND 16386 ORDER BY 1;
-- a recursion for each row: from a number down, over a tree, with and without duplicates
SELECT v.n, (WITH RECURSIVE r(i, total) AS (SELECT v.n, v.n UNION ALL SELECT i - 1, total + i - 1 FROM r WHERE i > 1) SELECT max(total) FROM r) FROM (VALUES (1), (3), (4), (NULL)) AS v(n) ORDER BY 1;
SELECT v.n, (WITH RECURSIVE r AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM r WHERE i < v.n) SELECT count(*) FROM r) FROM (VALUES (1), (3), (40)) AS v(n) ORDER BY 1;
SELECT v.n, ARRAY(WITH RECURSIVE r(i) AS (SELECT v.n UNION SELECT (i * 2) % 7 FROM r) SELECT i FROM r ORDER BY i) FROM (VALUES (0), (1), (3)) AS v(n) ORDER BY 1;
SELECT a.id, (WITH RECURSIVE up(id, depth) AS (SELECT e.boss, 1 FROM (VALUES (1, NULL), (2, 1), (3, 2), (4, 2)) AS e(id, boss) WHERE e.id = a.id UNION ALL SELECT e.boss, u.depth + 1 FROM (VALUES (1, NULL), (2, 1), (3, 2), (4, 2)) AS e(id, boss), up u WHERE u.id = e.id AND e.boss IS NOT NULL) SELECT id FROM up ORDER BY depth DESC LIMIT 1) AS top FROM (VALUES (1), (2), (3), (4)) AS a(id) ORDER BY 1;
SELECT v.n, x.i FROM (VALUES (2), (3)) AS v(n), LATERAL (WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT r.i + 1 FROM r JOIN (SELECT v.n AS top) t ON r.i < t.top) SELECT i FROM r) x ORDER BY 1, 2;
SELECT v.n, (WITH RECURSIVE r(i) AS (SELECT 1 UNION ALL SELECT max(i) + v.n FROM r HAVING max(i) < 10) SELECT count(*) FROM r) FROM (VALUES (2), (3)) AS v(n);
