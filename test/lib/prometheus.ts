/** A sample of the text format: `name{label="value"} 1`. */
export interface Sample {
  name: string
  labels: Record<string, string>
  value: number
}

const NAME = /^[a-zA-Z_:][a-zA-Z0-9_:]*$/
const LABEL = /([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"/y

/**
 * Reads Prometheus' text format as strictly as node_exporter does, and more: HELP and TYPE stand
 * once, in front of the samples; a metric's samples stand together; no sample stands twice.
 *
 * @throws Error for whatever Prometheus would refuse
 */
export function parseMetrics(text: string): Sample[] {
  if (!text.endsWith('\n')) throw new Error('the last line has no end')
  const samples: Sample[] = []
  const helped = new Set<string>()
  const typed = new Set<string>()
  let current = ''
  for (const line of text.slice(0, -1).split('\n')) {
    const [hash, kind, name = '', ...rest] = line.split(' ')
    if (hash === '#') {
      const known = kind === 'HELP' ? helped : kind === 'TYPE' ? typed : undefined
      if (!known || known.has(name) || !NAME.test(name)) throw new Error(`bad remark: ${line}`)
      if (kind === 'TYPE' && rest.join(' ') !== 'gauge') throw new Error(`bad type: ${line}`)
      if (kind === 'TYPE' && !helped.has(name)) throw new Error(`no HELP before: ${line}`)
      known.add(name)
      current = name
      continue
    }
    const sample = parseSample(line)
    if (sample.name !== current || !typed.has(current)) throw new Error(`out of place: ${line}`)
    samples.push(sample)
  }
  const keys = samples.map(({ name, labels }) => JSON.stringify([name, Object.entries(labels)]))
  if (new Set(keys).size < keys.length) throw new Error('a sample stands twice')
  return samples
}

function parseSample(line: string): Sample {
  const [, name = '', inner, number = ''] =
    /^([^{ ]+)(?:\{(.*)\})? (-?\d+(?:\.\d+)?)$/.exec(line) ?? []
  if (!NAME.test(name)) throw new Error(`no sample: ${line}`)
  const labels: Record<string, string> = {}
  LABEL.lastIndex = 0
  while (inner && LABEL.lastIndex < inner.length) {
    const at = LABEL.lastIndex
    if (at > 0 && inner[at] !== ',') throw new Error(`bad labels: ${line}`)
    LABEL.lastIndex = at > 0 ? at + 1 : 0
    const [, label = '', value = ''] = LABEL.exec(inner) ?? []
    if (label === '' || label in labels) throw new Error(`bad labels: ${line}`)
    labels[label] = value.replace(/\\(.)/g, (_, char) => (char === 'n' ? '\n' : char))
  }
  return { name, labels, value: Number(number) }
}
