-- A plain view: a name for a query.
{{ config(materialized='view') }}
SELECT order_id, customer_id, category, amount, event_time FROM {{ source('shop', 'orders') }} WHERE amount >= 50
