-- The departments' revenue is that of the orders.
SELECT orders, departments
FROM (SELECT SUM(amount) AS orders FROM {{ source('shop', 'orders') }}) AS o,
     (SELECT SUM(revenue) AS departments FROM {{ ref('departments') }}) AS d
WHERE orders <> departments
