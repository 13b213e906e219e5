// node-postgres (pg): pools, prepared statements, types, cursors, COPY.
const assert = require('node:assert/strict')
const { pipeline } = require('node:stream/promises')
const { Readable } = require('node:stream')
const { Client, Pool } = require('pg')
const Cursor = require('pg-cursor')
const { from: copyFrom, to: copyTo } = require('pg-copy-streams')

const TOKEN = '6f1f2a3e-0c1f-4d6a-9d1c-0a2b3c4d5e6f'

async function connected(work, settings = {}) {
  const client = new Client(settings)
  await client.connect()
  try {
    await work(client)
  } finally {
    await client.end()
  }
}

const refused = (state, work) => assert.rejects(work, (error) => (assert.equal(error.code, state, error.message), true))

const tests = {
  everyType: () => connected(async (client) => {
    const { rows: [row] } = await client.query('SELECT * FROM every_type WHERE id = $1', [1])
    assert.equal(row.f_bool, true)
    assert.equal(row.f_int2, -32768)
    assert.equal(row.f_int4, 2147483647)
    assert.equal(row.f_int8, '-9223372036854775808')
    assert.equal(row.f_float8, -2.25)
    assert.equal(row.f_text, `Zürich 'n' "more"`)
    assert.equal(row.f_timestamptz.toISOString(), '2024-02-29T12:34:56.789Z')
    assert.equal(row.f_numeric, '1234567890123456.7891')
    assert.deepEqual([...row.f_bytea], [0, 255, 16])
    assert.equal(row.f_uuid, TOKEN)
    assert.deepEqual(row.f_json, { a: [1, 2, null] })
    assert.deepEqual(row.f_jsonb, { a: [1, 2, null] })
    assert.deepEqual(row.f_ints, [1, null, 3])
    assert.deepEqual(row.f_texts, ['a', 'b,c', 'd"e', ''])
    assert.equal(row.f_interval.toPostgres(), '6.789 seconds 5 minutes 4 hours 3 days 2 months 1 years')
  }),
  parameters: () => connected(async (client) => {
    const one = async (text, ...values) => Object.values((await client.query(text, values)).rows[0])[0]
    assert.equal(await one('SELECT name FROM customers WHERE token = $1', TOKEN), 'Ada')
    assert.equal(await one('SELECT count(*) FROM orders WHERE order_id = ANY($1)', ['o1', 'o2']), '2')
    assert.equal(await one('SELECT count(*) FROM orders WHERE amount > $1 AND customer_id = $2', 12.49, 1), '1')
    assert.equal(await one('SELECT $1::jsonb', { a: 1 }).then((v) => v.a), 1)
    assert.equal(await one('SELECT $1::text', null), null)
    assert.ok(Number.isNaN(await one('SELECT $1::float8', NaN)))
    assert.equal(await one('SELECT count(*) FROM customers WHERE joined < $1', new Date('2025-01-01')), '1')
    await client.query('INSERT INTO every_type (id, f_bytea, f_jsonb, f_texts, f_bool, f_timestamptz) VALUES ($1, $2, $3, $4, $5, $6)',
      [50, Buffer.from([1, 2]), { b: [] }, ['x', null], false, new Date(0)])
    const { rows: [row] } = await client.query('DELETE FROM every_type WHERE id = $1 RETURNING *', [50])
    assert.deepEqual([[...row.f_bytea], row.f_jsonb, row.f_texts, row.f_bool, row.f_timestamptz.getTime()], [[1, 2], { b: [] }, ['x', null], false, 0])
  }),
  preparedStatements: () => connected(async (client) => {
    for (const id of [1, 2, 1]) {
      const { rows, fields } = await client.query({ name: 'by id', text: 'SELECT name, token FROM customers WHERE id = $1', values: [id] })
      assert.equal(rows[0].name, id === 1 ? 'Ada' : 'Grace')
      assert.deepEqual(fields.map((f) => [f.dataTypeID, f.columnID]), [[1043, 2], [2950, 3]])
      assert.ok(fields[0].tableID > 0)
    }
    const results = await client.query('SELECT 1::int AS a; SELECT 2::int AS b')
    assert.deepEqual(results.map((r) => r.rows[0]), [{ a: 1 }, { b: 2 }])
  }),
  transactions: () => connected(async (client) => {
    await client.query('BEGIN')
    await client.query("INSERT INTO stock VALUES (55, 'nut', 1)")
    await refused('42P01', client.query('SELECT * FROM nowhere'))
    await refused('25P02', client.query('SELECT 1'))
    await client.query('ROLLBACK')
    assert.equal((await client.query('SELECT * FROM stock WHERE shop = 55')).rowCount, 0)
    const notices = []
    client.on('notice', (notice) => notices.push(notice.message))
    await client.query('DROP TABLE IF EXISTS nowhere')
    assert.deepEqual(notices, ['table "nowhere" does not exist, skipping'])
  }),
  pool: async () => {
    const pool = new Pool({ max: 5 })
    const answers = await Promise.all(Array.from({ length: 50 }, (_, n) => pool.query('SELECT $1::int + $1::int AS n', [n])))
    assert.deepEqual(answers.map((a) => a.rows[0].n), Array.from({ length: 50 }, (_, n) => 2 * n))
    await pool.end()
  },
  cursors: () => connected(async (client) => {
    const cursor = client.query(new Cursor('SELECT n FROM generate_series(1, $1::int) AS g(n)', [250]))
    const counts = []
    for (let rows; (rows = await cursor.read(100)).length; ) counts.push(rows.length)
    assert.deepEqual(counts, [100, 100, 50])
    await cursor.close()
    assert.equal((await client.query('SELECT 1::int AS one')).rows[0].one, 1)
  }),
  copying: () => connected(async (client) => {
    await pipeline(Readable.from(['56\ta\t1\n', '56\tb\t2\n']), client.query(copyFrom('COPY stock FROM STDIN')))
    let text = ''
    for await (const chunk of client.query(copyTo('COPY (SELECT item, pieces FROM stock WHERE shop = 56 ORDER BY 1) TO STDOUT'))) text += chunk
    assert.equal(text, 'a\t1\nb\t2\n')
    assert.equal((await client.query('DELETE FROM stock WHERE shop = 56')).rowCount, 2)
  }),
  timeouts: () => connected(
    async (client) => refused('57014', client.query('SELECT pg_sleep(20)')),
    { statement_timeout: 200, application_name: 'node' }),
}

async function main() {
  let failed = 0
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test()
      console.log(`  ok      ${name}`)
    } catch (error) {
      failed++
      console.log(`  FAILED  ${name}\n            ${String(error.stack).split('\n').slice(0, 12).join('\n            ')}`)
    }
  }
  process.exit(failed ? 1 : 0)
}

main()
