-- The departments' revenue is that of the purchases.
SELECT purchases, departments
FROM (SELECT SUM(amount) AS purchases FROM {{ source('shop', 'purchases') }}) AS o,
     (SELECT SUM(revenue) AS departments FROM {{ ref('departments') }}) AS d
WHERE purchases <> departments
