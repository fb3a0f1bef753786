import type { Config } from '../settings/schema.ts'
import { configPath, type Loaded, settled } from '../settled.ts'

/**
 * Reads what the list needs of the configuration, kept ready for the next ban: nothing secret. Who
 * pushes needs the device's token, which is read anew each time.
 *
 * @throws Failure 78
 */
export async function loadFortigate(given?: string): Promise<Loaded> {
  const path = configPath(given)
  const kept = await settled(path, 'fortigate', async () => {
    const loaded = await loadWhole(path)
    return loaded.config.fortigate?.push
      ? null
      : { ...loaded, config: withoutSecrets(loaded.config) }
  })
  return kept ?? loadWhole(path)
}

async function loadWhole(path: string): Promise<Loaded> {
  const { loadConfig } = await import('../config.ts')
  return loadConfig(path, 'fortigate.push')
}

function withoutSecrets(config: Config): Config {
  const { owner, never_ban, min_prefix, state_dir, fortigate } = config
  const list = fortigate && { list_file: fortigate.list_file, list_mode: fortigate.list_mode }
  return { owner, never_ban, min_prefix, state_dir, fortigate: list } as Config
}
