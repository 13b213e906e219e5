-- A table of dbt's, CREATE TABLE … AS: here it is kept up to date, too.
{{ config(materialized='table') }}
SELECT customer_id, COUNT(*) AS purchases, SUM(amount) AS spent, MAX(event_time) AS latest
FROM {{ source('shop', 'purchases') }} GROUP BY customer_id
