-- A plain view: a name for a query.
{{ config(materialized='view') }}
SELECT purchase_id, customer_id, category, amount, event_time FROM {{ source('shop', 'purchases') }} WHERE amount >= 50
