/** The whole of what another machine sends; undefined as soon as it is longer than anything it may be. */
export async function readWhole(
  body: AsyncIterable<Uint8Array>,
  limit: number,
): Promise<string | undefined> {
  const parts: Uint8Array[] = []
  let size = 0
  for await (const part of body) {
    size += part.length
    if (size > limit) return undefined
    parts.push(part)
  }
  return Buffer.concat(parts).toString('utf8')
}
