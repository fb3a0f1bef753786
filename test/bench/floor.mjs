// The least that a server on Node does to send a file: one buffer, no question asked.
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'

const [file, port] = process.argv.slice(2)
const body = readFileSync(file)
const server = createServer((request, response) => {
  const known = request.headers['if-none-match'] !== undefined
  response.writeHead(known ? 304 : 200, {
    etag: '"1"',
    ...(!known && { 'content-length': body.length }),
  })
  response.end(known ? undefined : body)
})
server.listen(Number(port), '127.0.0.1')
