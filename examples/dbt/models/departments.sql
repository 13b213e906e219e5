-- A materialized view over another one and a seed: both are kept up to date together.
SELECT department, SUM(purchases)::bigint AS purchases, SUM(revenue) AS revenue
FROM {{ ref('revenue_by_window') }} JOIN {{ ref('categories') }} USING (category)
GROUP BY department
