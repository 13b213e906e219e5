-- what it asks of types that it does not know, and of those below them
WITH RECURSIVE tree(oid, ns, name, kind, basetype, elemtype, elemdelim, range_subtype, attrtypoids, attrnames, depth) AS (
    SELECT ti.oid, ti.ns, ti.name, ti.kind, ti.basetype, ti.elemtype, ti.elemdelim, ti.range_subtype, ti.attrtypoids, ti.attrnames, 0
    FROM (
        SELECT t.oid, n.nspname AS ns, t.typname AS name, t.typtype AS kind,
            (CASE WHEN t.typtype = 'd' THEN (WITH RECURSIVE typebases(oid, depth) AS (SELECT t2.typbasetype AS oid, 0 AS depth FROM pg_type t2 WHERE t2.oid = t.oid UNION ALL SELECT t2.typbasetype AS oid, tb.depth + 1 AS depth FROM pg_type t2, typebases tb WHERE tb.oid = t2.oid AND t2.typbasetype != 0) SELECT oid FROM typebases ORDER BY depth DESC LIMIT 1) ELSE NULL END) AS basetype,
            t.typelem AS elemtype, e.typdelim AS elemdelim, coalesce(r.rngsubtype, m.rngsubtype) AS range_subtype,
            (CASE WHEN t.typtype = 'c' THEN (SELECT array_agg(a.atttypid ORDER BY a.attnum) FROM pg_attribute a INNER JOIN pg_class c ON (a.attrelid = c.oid) WHERE a.attnum > 0 AND NOT a.attisdropped AND c.reltype = t.oid) ELSE NULL END) AS attrtypoids,
            (CASE WHEN t.typtype = 'c' THEN (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a INNER JOIN pg_class c ON (a.attrelid = c.oid) WHERE a.attnum > 0 AND NOT a.attisdropped AND c.reltype = t.oid) ELSE NULL END) AS attrnames
        FROM pg_catalog.pg_type AS t INNER JOIN pg_catalog.pg_namespace n ON (n.oid = t.typnamespace)
            LEFT JOIN pg_type e ON (t.typlen = -1 AND t.typelem != 0 AND t.typelem = e.oid)
            LEFT JOIN pg_range r ON (t.oid = r.rngtypid) LEFT JOIN pg_range m ON (t.oid = m.rngmultitypid)
    ) AS ti
    WHERE ti.oid = any(ARRAY[16, 1231]::oid[])
    UNION ALL
    SELECT ti.oid, ti.ns, ti.name, ti.kind, ti.basetype, ti.elemtype, ti.elemdelim, ti.range_subtype, ti.attrtypoids, ti.attrnames, tt.depth + 1
    FROM (
        SELECT t.oid, n.nspname AS ns, t.typname AS name, t.typtype AS kind,
            (CASE WHEN t.typtype = 'd' THEN (WITH RECURSIVE typebases(oid, depth) AS (SELECT t2.typbasetype AS oid, 0 AS depth FROM pg_type t2 WHERE t2.oid = t.oid UNION ALL SELECT t2.typbasetype AS oid, tb.depth + 1 AS depth FROM pg_type t2, typebases tb WHERE tb.oid = t2.oid AND t2.typbasetype != 0) SELECT oid FROM typebases ORDER BY depth DESC LIMIT 1) ELSE NULL END) AS basetype,
            t.typelem AS elemtype, e.typdelim AS elemdelim, coalesce(r.rngsubtype, m.rngsubtype) AS range_subtype,
            (CASE WHEN t.typtype = 'c' THEN (SELECT array_agg(a.atttypid ORDER BY a.attnum) FROM pg_attribute a INNER JOIN pg_class c ON (a.attrelid = c.oid) WHERE a.attnum > 0 AND NOT a.attisdropped AND c.reltype = t.oid) ELSE NULL END) AS attrtypoids,
            (CASE WHEN t.typtype = 'c' THEN (SELECT array_agg(a.attname::text ORDER BY a.attnum) FROM pg_attribute a INNER JOIN pg_class c ON (a.attrelid = c.oid) WHERE a.attnum > 0 AND NOT a.attisdropped AND c.reltype = t.oid) ELSE NULL END) AS attrnames
        FROM pg_catalog.pg_type AS t INNER JOIN pg_catalog.pg_namespace n ON (n.oid = t.typnamespace)
            LEFT JOIN pg_type e ON (t.typlen = -1 AND t.typelem != 0 AND t.typelem = e.oid)
            LEFT JOIN pg_range r ON (t.oid = r.rngtypid) LEFT JOIN pg_range m ON (t.oid = m.rngmultitypid)
    ) ti, tree tt
    WHERE (tt.elemtype IS NOT NULL AND ti.oid = tt.elemtype) OR (tt.attrtypoids IS NOT NULL AND ti.oid = any(tt.attrtypoids))
        OR (tt.range_subtype IS NOT NULL AND ti.oid = tt.range_subtype) OR (tt.basetype IS NOT NULL AND ti.oid = tt.basetype)
)
SELECT DISTINCT *, basetype::regtype::text AS basetype_name, elemtype::regtype::text AS elemtype_name, range_subtype::regtype::text AS range_subtype_name FROM tree ORDER BY depth DESC, oid;
SELECT pg_advisory_unlock_all();
