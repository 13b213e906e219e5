-- A materialized view over another one and a seed: both are kept up to date together.
SELECT department, SUM(orders)::bigint AS orders, SUM(revenue) AS revenue
FROM {{ ref('revenue') }} JOIN {{ ref('categories') }} USING (category)
GROUP BY department
