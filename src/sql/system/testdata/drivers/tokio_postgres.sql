SELECT t.typname, t.typtype, t.typelem, r.rngsubtype, t.typbasetype, n.nspname, t.typrelid
FROM pg_catalog.pg_type t
LEFT OUTER JOIN pg_catalog.pg_range r ON r.rngtypid = t.oid
INNER JOIN pg_catalog.pg_namespace n ON t.typnamespace = n.oid
WHERE t.oid = 1700;
SELECT attname, atttypid FROM pg_catalog.pg_attribute WHERE attrelid = 16384 AND NOT attisdropped AND attnum > 0 ORDER BY attnum;
SELECT enumlabel FROM pg_catalog.pg_enum WHERE enumtypid = 1 ORDER BY enumsortorder;
