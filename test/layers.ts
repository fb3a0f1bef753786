// Fails if modules import each other in a circle, import what stands above them, or stand on too many
// floors: `npm run check` calls it.
import { readdirSync, readFileSync } from 'node:fs'
import { join, normalize } from 'node:path'

/** The longest chain of imports from a command down. The goal is 8: lower it as they shrink. */
const FLOORS = 24

/** Folders of siblings: what two of them share lies above them in `scripts/lib/`. */
const SIBLINGS = [
  'abuseipdb',
  'firewall',
  'fortigate',
  'mikrotik',
  'net2ban',
  'opnsense',
  'reporter',
  'sophosxg',
]

const files = ['scripts', 'firewall-side'].flatMap((folder) => {
  const names = readdirSync(folder, { recursive: true, encoding: 'utf8' })
  return names.filter((name) => name.endsWith('.ts')).map((name) => join(folder, name))
})

/** What a module imports of ours, now or later (`import()`). Types alone are no import of code. */
function importsOf(file: string): string[] {
  const text = readFileSync(file, 'utf8')
  const found = text.matchAll(
    /^(?:import|export) (?!type )[^']*?'(\..*\.ts)'|import\('(\..*\.ts)'\)/gm,
  )
  return [...found].map(([, now, later]) => normalize(join(file, '..', now ?? later ?? '')))
}

const imports = new Map(files.map((file) => [file, importsOf(file)]))
const faults = new Set<string>()
const heights = new Map<string, number>()

/** How many floors a module has, with its own. */
function heightOf(file: string, above: string[] = []): number {
  const circle = above.includes(file)
  if (circle) faults.add(`in a circle: ${[...above.slice(above.indexOf(file)), file].join(' > ')}`)
  const known = circle ? 0 : heights.get(file)
  if (known !== undefined) return known
  const below = (imports.get(file) ?? []).map((other) => heightOf(other, [...above, file]))
  const height = 1 + Math.max(0, ...below)
  heights.set(file, height)
  return height
}

const isCommand = (file: string): boolean => /^(scripts|firewall-side)\/[^/]+$/.test(file)
const siblingOf = (file: string): string | undefined =>
  SIBLINGS.find((name) => file.startsWith(`scripts/lib/${name}/`))

for (const [file, others] of imports) {
  for (const other of others) {
    const [here, there] = [siblingOf(file), siblingOf(other)]
    if (isCommand(other)) faults.add(`back up: ${file} > ${other}`)
    if (here && there && here !== there) faults.add(`to a sibling: ${file} > ${other}`)
  }
  const height = heightOf(file)
  if (isCommand(file) && height > FLOORS) faults.add(`${height} floors: ${file}, at most ${FLOORS}`)
}
for (const fault of faults) console.error(`Import ${fault}`)
if (faults.size > 0) process.exitCode = 1
